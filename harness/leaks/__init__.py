"""What leaks through the black box: of the model to a participant, and of a participant's data to others."""
