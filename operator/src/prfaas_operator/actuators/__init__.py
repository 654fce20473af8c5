"""Other people's actuators: who else writes the number of a pool's workers, and what the operator tells them."""
