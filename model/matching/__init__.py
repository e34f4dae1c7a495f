"""Two ways of matching the views' features: the thesis's, pixel by pixel, and ours, on the ground."""
