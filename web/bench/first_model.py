"""What a bare worker does before it can do anything for a page: import pydantic, and make a first model."""

from pydantic import BaseModel


class First(BaseModel):
    """A model like those that jobs take."""

    number: int
    names: list[str] = []


First.model_validate({"number": 1, "names": ["a"]})
