"""What account process and worker process say to each other: one frozen model a call, and one its answer.

Structs of the module cross the border as far as somebody there reads them, under the module's own names. As they are
cross only the requests of ``order_send``, and what the broker log and a fact keep of an exchange. What comes in is of
its model, to the last field, or a :class:`~streamapp.terminal.pipe.frames.FrameError`.
"""
