"""The front door: turns HTTP into stream entries and back. It knows no provider and no price."""
