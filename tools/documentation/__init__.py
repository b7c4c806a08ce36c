"""Manual pages and the configuration reference, made from what the programs themselves go by.

A page is the ``parser()`` of a program's module, read as ``--help`` shows it: the first sentence of the
description is its name line, a line of the epilog that ends in a colon heads a section (``exit status:``,
``files:``, ``examples:``, ``see also:``). ``tools/manuals`` writes all anew; a test fails where it is not up
to date.
"""
