"""A custom environment and a custom network."""
