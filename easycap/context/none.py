"""No words beside the image."""

from easycap.registry import register


@register("tags", "none")
@register("draft", "none")
def nothing() -> None:
    """The image alone."""
    return None
