"""What is searched and what is not, in words for people who never saw a computer from inside."""

from __future__ import annotations

WORDS = {
    "files": "Every file on the machine that was written, changed or renamed during the test: in the unit's own"
    " folders, in all folders for temporary files, in the user's folders, among the logs, and in memory that looks like"
    " a disk. Searched twice: while the software was still running, and after it had ended.",
    "outbox": "The place where sealed messages wait until the control room has them.",
    "messages": "Everything that the software printed while it ran.",
    "journal": "The machine's own diary, in which programs leave remarks.",
    "local socket": "A recording of everything that the part with the camera handed to the part with the network.",
    "figures": "What the part with the camera tells the status screen: counts only.",
    "network": "A recording of what went over the network to the control room's message server.",
    "courier memory": "The working memory of the part that holds the network connection, read several times.",
    "swap": "Where a computer short of memory puts parts of it on its disk.",
    "core files": "The part with the camera was made to crash while faces were in front of it. Many systems then write"
    " its whole memory to a file; such a file must not appear.",
    "vision afterwards": "The working memory of the part with the camera, read at the moment when the last face had"
    " left the picture. The software wipes what it kept of a face; copies that the libraries under it made may lie in"
    " memory that was given back and not yet used again. They cannot leave the machine, and go when it is switched"
    " off.",
    "control room": "What the control room sees when it opens the alerts: only faces that matched the list may be"
    " there.",
}
NOT_SEARCHED = (
    "Blocks of the disk that belong to no file any more. Nothing was found in files while they existed; but files that"
    " came and went between two searches were not seen.",
    "Compressed or encrypted forms of the needles. Only bytes as they are, base64 and hexadecimal were searched; what"
    " is sealed is by design not to be told from noise.",
    "The memory of the camera, of graphics or inference chips, and of the operating system's own kernel.",
    "The machines of the base and the control room, except where the alerts they opened are listed above.",
    "Whether the software in daily use is the software that was tested here: that is what the version and the digests"
    " of the models are for.",
)
