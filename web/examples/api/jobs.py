"""Orders from an HTTP API that is often busy: each answer is a checkpoint, and no order is asked for twice."""

from pydantic import BaseModel
from pyodide.http import pyfetch
from typing_extensions import TypedDict

from durably import NonRetryableError, Retry, RetryAfter, StepContext, job

PATIENT = Retry(attempts=10, delay=0.25, max_delay=5)


class Sync(BaseModel):
    url: str
    orders: int = 200


class Order(TypedDict):
    number: int
    country: str
    cents: int


class Report(BaseModel):
    orders: int
    cents: int
    by_country: dict[str, int]


@job(name="sync-orders")
async def sync_orders(step: StepContext, payload: Sync) -> Report:
    patiently = step.with_options(retry=PATIENT)
    by_country: dict[str, int] = {}
    for number in range(1, payload.orders + 1):
        order: Order = await patiently.run(f"order-{number:03}", fetch_order, f"{payload.url}/{number}")
        by_country[order["country"]] = by_country.get(order["country"], 0) + order["cents"]
        step.progress(number, payload.orders)
    return Report(orders=payload.orders, cents=sum(by_country.values()), by_country=by_country)


async def fetch_order(url: str) -> Order:
    response = await pyfetch(url)
    if response.status == 429:  # asked too fast: the API says when to come back
        raise RetryAfter(float(response.headers.get("retry-after", "1")))
    if response.status >= 500:  # its trouble, which passes
        raise OSError(f"the API answered {response.status}")
    if not response.ok:
        raise NonRetryableError(f"There is no API of orders here: it answered {response.status}.")
    order: Order = await response.json()
    return order
