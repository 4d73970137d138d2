"""The closed loop, lived through by real processes: a thermometer drifts and jumps, and another version takes over."""
