"""Readings of weather stations, made and added up by SQL. Rows and checkpoint are one commit: none comes twice."""

import asyncio

from pydantic import BaseModel

from durably import StepContext, UserTransaction, job

BATCH = 10_000
TABLE = "CREATE TABLE IF NOT EXISTS readings (run_id TEXT, number INTEGER, station INTEGER, celsius REAL)"
# The same at each execution. Nothing in the table forbids a row twice: only the transaction keeps it out.
FILL = """
INSERT INTO readings WITH RECURSIVE numbers (n) AS (SELECT ? UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
SELECT ?, n, n % 12, (n * 7919 % 4001 - 1000) / 100.0 FROM numbers"""
COUNT = "SELECT count(*), count(DISTINCT number) FROM readings WHERE run_id = ?"
STATIONS = """
SELECT station, count(*), min(celsius), avg(celsius), max(celsius) FROM readings WHERE run_id = ? GROUP BY station"""
CLEAR = "DELETE FROM readings WHERE run_id = ?"

Station = tuple[int, int, float, float, float]  # its number, its readings; the coldest, the mean, the warmest


class Size(BaseModel):
    rows: int
    pause: float = 0  # seconds after each batch, only to make it watchable


class Summary(BaseModel):
    expected: int
    rows: int
    different: int
    stations: list[Station]


@job(name="weather-pipeline")
async def weather_pipeline(step: StepContext, size: Size) -> Summary:
    made: set[int] = set()

    async def fill(tx: UserTransaction, first: int) -> None:
        await tx.execute(TABLE)
        await tx.execute(FILL, [first, min(first + BATCH - 1, size.rows), step.run_id])
        made.add(first)

    starts = range(1, size.rows + 1, BATCH)
    for batch, first in enumerate(starts, 1):
        await step.transaction(f"rows-{batch:03}", fill, first)
        step.progress(batch, len(starts))
        await asyncio.sleep(size.pause if first in made else 0)
    return await step.transaction("summary", summarise, step.run_id, size.rows)


async def summarise(tx: UserTransaction, run_id: str, expected: int) -> Summary:
    [(rows, different)] = await tx.execute(COUNT, [run_id])
    found = await tx.execute(STATIONS, [run_id])
    stations = [(number, count, coldest, mean, warmest) for number, count, coldest, mean, warmest in found]
    await tx.execute(CLEAR, [run_id])  # so that they do not pile up: with the summary they have served
    return Summary(expected=expected, rows=rows, different=different, stations=stations)
