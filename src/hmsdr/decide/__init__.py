"""The pure core: (state, event, now) -> (state, decisions with typed reasons). No clock, network or store."""
