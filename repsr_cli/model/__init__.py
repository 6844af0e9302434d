"""The trained network, the plain network, the door between them, and their files."""
