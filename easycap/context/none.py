"""No words beside the image, and no model of tags."""

from easycap.registry import register


@register("tags", "none")
@register("draft", "none")
@register("tagger", "none")
def nothing() -> None:
    """The image alone."""
    return None
