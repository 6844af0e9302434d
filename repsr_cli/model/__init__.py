"""The training network, the plain network it fuses into, and the files that hold them."""
