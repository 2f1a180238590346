"""Thumbnails and average colours of pictures, made by the browser's own canvas: one checkpoint a picture."""

import asyncio
from base64 import b64encode

from js import Object, OffscreenCanvas, createImageBitmap, navigator
from pydantic import BaseModel
from pyodide.ffi import JsException, to_js
from typing_extensions import TypedDict

from durably import StepContext, job

LONGEST = 320  # pixels


class Picture(TypedDict):
    name: str
    file: str  # what the page has called its copy in this browser's private files


class Album(BaseModel):
    pictures: list[Picture]
    pause: float = 0  # seconds for each, only to make it watchable


class Thumbnail(TypedDict):
    name: str
    size: str
    colour: str
    url: str  # empty: it was no picture


@job(name="make-thumbnails")
async def make_thumbnails(step: StepContext, album: Album) -> list[Thumbnail]:
    made: list[Thumbnail] = []
    for number, picture in enumerate(album.pictures, 1):
        made.append(await step.run(f"picture-{number:03}", shrink, picture, album.pause))
        step.progress(number, len(album.pictures))
    return made


async def shrink(picture: Picture, pause: float) -> Thumbnail:
    await asyncio.sleep(pause)
    folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("pictures")
    file = await (await folder.getFileHandle(picture["file"])).getFile()
    try:
        bitmap = await createImageBitmap(file)
    except JsException:
        return {"name": picture["name"], "size": "not a picture", "colour": "#000000", "url": ""}
    scale = min(1, LONGEST / max(bitmap.width, bitmap.height))
    width, height = (max(1, round(side * scale)) for side in (bitmap.width, bitmap.height))
    canvas = OffscreenCanvas.new(width, height)
    pen = canvas.getContext("2d")
    pen.drawImage(bitmap, 0, 0, width, height)
    pixels = pen.getImageData(0, 0, width, height).data.to_bytes()  # red, green, blue, opacity; and so on
    colour = "#" + "".join(f"{sum(pixels[part::4]) // (width * height):02x}" for part in range(3))
    blob = await canvas.convertToBlob(to_js({"type": "image/png"}, dict_converter=Object.fromEntries))
    url = "data:image/png;base64," + b64encode((await blob.arrayBuffer()).to_bytes()).decode()
    return {"name": picture["name"], "size": f"{bitmap.width} × {bitmap.height}", "colour": colour, "url": url}
