"""A bank for the examples: keeps accounts in a file, takes its time, and honours idempotency keys as real ones do."""

import os
import sqlite3
import tempfile
import time
from pathlib import Path


def pay(key: str, to: str, amount: int) -> str:
    """Pay once per ``key``, however often it is called; the receipt is always the first payment's."""
    seconds = float(os.environ.get("EXPENSE_BANK_SECONDS", "0"))
    with _open() as books:
        books.execute("insert into calls values (?)", (key,))
        books.commit()
        time.sleep(seconds)
        books.execute("insert or ignore into payments values (?, ?, ?)", (key, to, amount))
        (number,) = books.execute("select rowid from payments where key = ?", (key,)).fetchone()
    return f"payment-{number}"


def calls(key: str, books: Path | None = None) -> int:
    """How often the bank was asked to pay under ``key``."""
    return _count("select count(*) from calls where key = ?", key, books)


def payments(key: str, books: Path | None = None) -> int:
    """How often money really moved under ``key``."""
    return _count("select count(*) from payments where key = ?", key, books)


def _count(query: str, key: str, file: Path | None) -> int:
    with _open(file) as books:
        (count,) = books.execute(query, (key,)).fetchone()
    return int(count)


def _open(file: Path | None = None) -> sqlite3.Connection:
    default = Path(tempfile.gettempdir()) / "flowcore-example-bank.sqlite"
    books = sqlite3.connect(file or os.environ.get("EXPENSE_BANK_FILE") or default, timeout=10)
    books.execute("create table if not exists calls (key text)")
    books.execute("create table if not exists payments (key text primary key, payee text, amount integer)")
    return books
