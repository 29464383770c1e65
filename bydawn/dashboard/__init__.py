"""The dashboard of ``bydawn serve``: how the open batches stand, for a browser on this machine.

    board.py     what there is to show, from the views of the ledger
    page.py      the same as a page: every text from outside is escaped there (SEC-5)
    metrics.py   the same as Prometheus reads it
    door.py      who may ask: this machine, by the exact name of the address, with the token (SEC-6)
    app.py       the routes
    dashboard.css, dashboard.js

It reads the ledger and writes nothing, and it lives at a port of its own, so that a proxy which passes the callbacks on
cannot pass this on by mistake.
"""
