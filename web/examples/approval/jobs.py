"""An expense that waits for a person's word, over reloads and days if need be, but not for ever."""

from typing import Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from durably import StepContext, job


class Expense(BaseModel):
    purpose: str = Field(min_length=1, max_length=80)
    euros: float = Field(gt=0, le=1_000_000)
    patience: float = 600  # seconds


class Answer(TypedDict):
    approved: bool


class Decision(BaseModel):
    outcome: Literal["approved", "rejected", "expired"]
    sentence: str


@job(name="approve-expense")
async def approve_expense(step: StepContext, expense: Expense) -> Decision:
    await step.run("ask", ask, expense)
    try:
        answer: Answer = await step.wait_for_signal("decision", timeout=expense.patience)
    except TimeoutError:
        return await step.run("settle", settle, expense, None)
    return await step.run("settle", settle, expense, answer["approved"])


def ask(expense: Expense) -> str:
    """A program of yours would send a message here. It is sent once, however often the page is reloaded."""
    return f"May {expense.euros:,.2f} € be spent on {expense.purpose}?"


def settle(expense: Expense, approved: bool | None) -> Decision:
    """What is done about it, once; `None`: nobody has answered."""
    if approved is None:
        return Decision(outcome="expired", sentence=f"Nobody answered in time: {expense.purpose} has to wait.")
    if approved:
        return Decision(outcome="approved", sentence=f"{expense.euros:,.2f} € are set aside for {expense.purpose}.")
    return Decision(outcome="rejected", sentence=f"Nothing is spent on {expense.purpose}.")
