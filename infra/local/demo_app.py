"""What the local stack serves when nobody says what: the expenses, and the refunds that a signed link decides."""

from examples.expense import expense_flow
from examples.refund import bank, refunds
from flowcore import App

BANK_KEY = "whsec_dGhlIGJhbmsgb2YgdGhlIGxvY2FsIHN0YWNr"
"""What the bank of the examples signs with, where there is nobody to deceive."""
ENVIRONMENT = {"REFUND_BANK_SECRET": BANK_KEY}

app = App(expense_flow, refunds, webhooks=[bank])
