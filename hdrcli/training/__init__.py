"""Training of this project's own networks: one data pool, one loop, one file of losses and samples per network."""
