"""How values become colours: programs in GLSL, with controls that neuroglancer shows beside the layer."""

PALETTE = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
"""Colours that colour-blind people tell apart (Okabe and Ito)."""

GREY = """#uicontrol invlerp contrast
void main() {
  emitGrayscale(contrast());
}
"""

RGB = """#uicontrol invlerp contrast
void main() {
  emitRGB(vec3(%s));
}
"""

MASK = """#uicontrol vec3 color color(default="%s")
#uicontrol bool inside checkbox(default=%s)
void main() {
  bool nonzero = toNormalized(getDataValue()) > 0.0;
  if (nonzero == inside) {
    emitRGB(color);
  } else {
    emitTransparent();
  }
}
"""

PROBABILITY = """#uicontrol invlerp probability
#uicontrol vec3 color color(default="%s")
#uicontrol float threshold slider(min=0, max=1, default=0, step=0.01)
void main() {
  float p = probability();
  if (p < threshold) {
    emitTransparent();
  } else {
    emitRGBA(vec4(color, p));
  }
}
"""

HEATMAP = """#uicontrol invlerp value
void main() {
  float v = value();
  emitRGBA(vec4(colormapJet(v), clamp(v * 10.0, 0.0, 1.0)));
}
"""


def rgb(num_channels: int) -> str:
    """Return the program that shows two or three channels as red, green and blue, one as grey."""
    if num_channels == 1:
        return GREY
    parts = [f"contrast(getDataValue({c}))" if c < num_channels else "0.0" for c in range(3)]
    return RGB % ", ".join(parts)


def mask(color: str, *, inside: bool) -> str:
    """Return the program that paints the nonzero voxels (``inside``) or the others."""
    return MASK % (color, str(inside).lower())


def probability(color: str) -> str:
    """Return the program that paints one colour, the more opaque the more probable."""
    return PROBABILITY % color
