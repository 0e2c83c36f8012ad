"""The worker pool: takes requests off the stream, admits, calls, and settles them."""
