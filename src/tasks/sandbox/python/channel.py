"""Frames to and from the host, one JSON value a line."""

import fcntl
import json
import os


class Channel:
    """Uses descriptors that standard input and output, which become /dev/null, no longer name."""

    def __init__(self):
        # Above the three standard ones, also where one of those is closed.
        self.descriptors = [fcntl.fcntl(standard, fcntl.F_DUPFD, 3) for standard in (0, 1)]
        self.reader = open(self.descriptors[0], "rb", closefd=False)
        nothing = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        if nothing > 2:
            os.close(nothing)

    def receive(self):
        """The next frame; None when the host has gone."""
        line = self.reader.readline()
        return json.loads(line) if line else None

    def send(self, frame):
        data = memoryview(json.dumps(frame).encode() + b"\n")
        while data:
            data = data[os.write(self.descriptors[1], data) :]

    def close(self):
        for descriptor in self.descriptors:
            os.close(descriptor)


def problem(error):
    """An exception as a frame; `bases` name its classes, the nearest first."""
    kind = type(error)
    try:
        message = str(error)[:500]
    except BaseException:
        message = ""
    bases = [base.__name__ for base in kind.__mro__[:20]]
    return {"error": {"type": kind.__name__, "message": message, "bases": bases}}
