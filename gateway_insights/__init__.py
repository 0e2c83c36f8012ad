"""The insights process: events into PostgreSQL, and what they tell."""
