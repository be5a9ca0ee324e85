"""Okabe and Ito's colors: told apart by readers who don't see every hue, and different in lightness too.

Okabe and Ito, *Color Universal Design* (2008), https://jfly.uni-koeln.de/color/. Yellow is not in the cycle: lines
of it can't be seen on white.
"""

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, YELLOW = "#E69F00", "#56B4E9", "#000000", "#F0E442"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
