"""Several processes behind one port: the parent accepts, chooses and passes; workers serve; the parent tells for all.

`supervisor` is who serves and what to do when one dies, `member` one worker as the parent sees it, `dispatch` and
`handoff` the way of a connection, `control` what both sides say, `siblings` what one tells all, `worker` the process's
main, `merge` and `scrape` the metrics of all as one.
"""
