"""From a name to an installed model."""
