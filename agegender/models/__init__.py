"""The networks: each can be read in one place."""
