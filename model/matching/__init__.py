"""Ways of matching the two views' features: the thesis's, pixel by pixel, and ours, on the ground."""
