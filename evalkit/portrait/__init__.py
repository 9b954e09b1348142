"""A report about one scored model or two: its images are drawn again from its record, and looked at.

    page = portray(PortraitRequest(runs=(Run(record=record, score=request, state=Path("runs/state")),)),
                   console=Silent())

The records say which images were scored; everything is read by their index, so that the pictures of the page
are those of the scores. What was extracted then is not extracted again where its state is still there.
"""

from evalkit.portrait.drawing import portray
from evalkit.portrait.reopening import restored
from evalkit.portrait.request import PortraitRequest, Run

__all__ = ["PortraitRequest", "Run", "portray", "restored"]
