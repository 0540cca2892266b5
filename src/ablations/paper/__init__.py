import os

# Figures are drawn into files; matplotlib reads this when it is imported.
os.environ["MPLBACKEND"] = "Agg"
