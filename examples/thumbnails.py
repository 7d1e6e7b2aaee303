"""Many items over many workers: an album's photos are shrunk wherever there is a worker, and a tenth may be lost.

Run it: ``python examples/thumbnails.py``.
"""

from __future__ import annotations

from pydantic import BaseModel

from flowcore import App, step, workflow


class Photo(BaseModel):
    """One photo, by name: its bytes are where the step finds them."""

    name: str
    bytes: int


class Album(BaseModel):
    """What is to be shrunk."""

    photos: list[Photo]


class Made(BaseModel):
    """What became of an album."""

    bytes: int
    lost: int


@step(retries=1)
def shrink(photo: Photo) -> int:
    """The size of the thumbnail; a photo without a byte cannot be read."""
    if photo.bytes == 0:
        raise ValueError(f"{photo.name} is empty")
    return photo.bytes // 10


thumbnails = (
    workflow("thumbnails", input=Album, output=Made)
    .map(lambda album: album.photos, id="photos")
    .foreach(shrink, id="shrink-all", distributed=True, concurrency=500, min_successful=0.9)
    .map(lambda sizes: Made(bytes=sum(size or 0 for size in sizes), lost=sizes.count(None)), id="count")
    .commit()
)

app = App(thumbnails)


def main() -> None:
    """Shrink twenty photos, one of which is broken."""
    photos = [Photo(name=f"{number}.jpg", bytes=1000 * number) for number in range(20)]
    result = app.workflow(thumbnails).create_run("album-1").start(Album(photos=photos))
    print(result.status, result.output)
    print(result.progress["shrink-all"])


if __name__ == "__main__":
    main()
