"""Gates that are learned: soft mixes of fresh and kept values, losses, and the loop in which they are fitted."""
