"""What runs Quicksilver and watches it, outside of the two packages."""
