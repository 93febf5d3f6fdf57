"""incasem: train on a few annotated boxes, segment the whole electron-microscopy volume."""
