"""How a volume is cut into blocks and worked on by daisy workers."""
