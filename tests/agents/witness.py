"""The stand-in agent of the fault tests: it says in a file outside the database when it works, and at what.

Each line is one write to a file opened with O_APPEND, so lines never mix and stand in the order in which things happened:
    start|end <task> <session> <epoch> <pid> <seconds of CLOCK_BOOTTIME>
While it or anything it has started lives it holds a lock named after its session; one that finds the lock taken writes
    overlap <task> <session> <epoch> <pid> <seconds>
and goes on. It ends when it is told to, not when its dispatcher thinks so: what it takes to end it is what is tested.

Run as `python -I -S witness.py <folder> <task> <session> <epoch> <what to do>`, the last being words:
    <number>  work that many milliseconds        gate   work until the fifo `gate` in the folder has a writer
    mute      say nothing on standard output before the work is done      family   with a child in a session of its own that ignores TERM
"""

import fcntl
import os
import sys
import time

BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def main() -> None:
    folder, task, session, epoch, *words = sys.argv[1:]
    witness = os.open(f"{folder}/witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(what: str) -> None:
        os.write(witness, f"{what} {task} {session} {epoch} {os.getpid()} {time.clock_gettime(BOOTTIME):.6f}\n".encode())

    lock = os.open(f"{folder}/session-{session}", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("overlap")
    say("start")
    stop = -1
    if "family" in words:
        import signal  # only here: it costs as much as all the rest of this program

        reading, stop = os.pipe()
        if os.fork() == 0:
            os.close(stop)
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while not os.read(reading, 1):  # its parent was ended before its work was done: only KILL ends it
                signal.pause()
            os._exit(0)
    if "mute" not in words:
        os.write(1, b"started\n")
    if "gate" in words:
        os.close(os.open(f"{folder}/gate", os.O_RDONLY))
    for word in words:
        if word.isdigit():
            time.sleep(int(word) / 1000)
    if stop >= 0:
        os.write(stop, b"x")
        os.wait()
    say("end")


main()
