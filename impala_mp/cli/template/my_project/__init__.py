"""An environment and a network of one's own."""
