"""What the story of the links is told with: the refunds of the example, and expenses, which anybody may decide."""

from examples.expense import expense_flow
from examples.refund import bank, refunds
from flowcore import App

app = App(refunds, expense_flow, webhooks=[bank])
