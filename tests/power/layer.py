"""A file system in memory that loses at the end what was not synced, as a disk does at a power failure.

    python layer.py MOUNT BEFORE AFTER SEED     in the foreground, until it is unmounted

It begins with a copy of the folder BEFORE, all of it on the disk. At the end AFTER is made: what the disk then has.
- A file has what it had at its last fsync and, by chance, the start of what was written since; one never synced may be
  empty.
- A directory has the names that it had at its last fsync and, by chance, the first few of the changes since.
So may any disk that keeps POSIX's word and nothing beyond it. Beside that it is like a network's file system: no
exchange of two names, no hard links. With POWER_FSYNC=ignored it syncs nothing, so that a test is seen to fail on it.
Needs fusepy (PyPI) and libfuse 2.
"""
import errno
import os
import random
import stat
import sys
import time

import fuse

HONEST = os.environ.get("POWER_FSYNC") != "ignored"


class Node:
    """A file or a directory: what it is now, and what the disk has of it."""

    count = 0

    def __init__(self, mode):
        Node.count += 1
        self.number, self.mode, self.times = Node.count, mode, (time.time(), time.time())

    def is_dir(self):
        return stat.S_ISDIR(self.mode)


class File(Node):
    def __init__(self, mode, data=b""):
        super().__init__(stat.S_IFREG | mode)
        self.data, self.disk = bytearray(data), bytes(data)

    def sync(self):
        self.disk = bytes(self.data)

    def after(self, chance):
        data = bytes(self.data)
        if data == self.disk or chance.random() < 0.4:
            return self.disk
        if not data.startswith(self.disk):
            return data if chance.random() < 0.5 else self.disk
        return data[: chance.randint(len(self.disk), len(data))]


class Directory(Node):
    def __init__(self, mode):
        super().__init__(stat.S_IFDIR | mode)
        self.names, self.disk, self.changes = {}, {}, []

    def put(self, name, node):
        """A name for a node, or none."""
        if node is None:
            self.names.pop(name)
        else:
            self.names[name] = node
        self.changes.append(dict(self.names))

    def rename(self, old, new):
        node = self.names.pop(old)
        self.names[new] = node
        self.changes.append(dict(self.names))

    def sync(self):
        self.disk, self.changes = dict(self.names), []

    def after(self, chance):
        kept = 0 if chance.random() < 0.4 else chance.randint(0, len(self.changes))
        return self.changes[kept - 1] if kept else self.disk


def read(path):
    """A folder as nodes that are on the disk."""
    here = Directory(stat.S_IMODE(os.stat(path).st_mode))
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            node = read(entry.path)
        else:
            with open(entry.path, "rb") as file:
                node = File(stat.S_IMODE(entry.stat().st_mode), file.read())
        here.names[entry.name] = node
    here.sync()
    return here


def write(directory, path, chance):
    """What the disk has of it."""
    os.mkdir(path, 0o700)
    for name, node in sorted(directory.after(chance).items()):
        at = f"{path}/{name}"
        if node.is_dir():
            write(node, at, chance)
        else:
            with open(at, "wb") as file:
                file.write(node.after(chance))
        os.chmod(at, stat.S_IMODE(node.mode))


def refuse(number):
    raise fuse.FuseOSError(number)


class Layer(fuse.Operations):
    def __init__(self, before, after, seed):
        self.root, self.after, self.seed = read(before), after, seed
        self.open_files = {}

    def destroy(self, path):
        write(self.root, self.after, random.Random(self.seed))

    # Names.

    def node(self, path):
        node = self.root
        for part in path.strip("/").split("/"):
            if part:
                if not node.is_dir():
                    refuse(errno.ENOTDIR)
                node = node.names.get(part) or refuse(errno.ENOENT)
        return node

    def parent(self, path):
        parent, name = os.path.split(path)
        directory = self.node(parent)
        return (directory, name) if directory.is_dir() else refuse(errno.ENOTDIR)

    def opened(self, path, handle):
        return self.open_files[handle] if handle in self.open_files else self.node(path)

    def handle(self, node):
        handle = max(self.open_files, default=0) + 1
        self.open_files[handle] = node
        return handle

    def getattr(self, path, fh=None):
        node = self.opened(path, fh)
        size = 0 if node.is_dir() else len(node.data)
        accessed, modified = node.times
        return {"st_mode": node.mode, "st_ino": node.number, "st_nlink": 1, "st_size": size, "st_uid": os.getuid(),
                "st_gid": os.getgid(), "st_atime": accessed, "st_mtime": modified, "st_ctime": modified}

    def readdir(self, path, fh):
        return [".", "..", *self.node(path).names]

    def create(self, path, mode, fi=None):
        directory, name = self.parent(path)
        node = File(stat.S_IMODE(mode))
        directory.put(name, node)
        return self.handle(node)

    def mkdir(self, path, mode):
        directory, name = self.parent(path)
        directory.put(name, Directory(stat.S_IMODE(mode)))

    def unlink(self, path):
        directory, name = self.parent(path)
        directory.put(name, None)

    def rmdir(self, path):
        directory, name = self.parent(path)
        if directory.names[name].names:
            refuse(errno.ENOTEMPTY)
        directory.put(name, None)

    def rename(self, old, new):
        (source, name), (target, new_name) = self.parent(old), self.parent(new)
        there = target.names.get(new_name)
        if there is not None and there.is_dir() and there.names:
            refuse(errno.ENOTEMPTY)
        if source is target:
            source.rename(name, new_name)
        else:
            target.put(new_name, source.names[name])
            source.put(name, None)

    def chmod(self, path, mode):
        node = self.node(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)

    def chown(self, path, uid, gid):
        pass

    def utimens(self, path, times=None):
        self.node(path).times = times or (time.time(), time.time())

    # Contents.

    def open(self, path, flags):
        return self.handle(self.node(path))

    def read(self, path, size, offset, fh):
        return bytes(self.opened(path, fh).data[offset : offset + size])

    def write(self, path, data, offset, fh):
        node = self.opened(path, fh)
        if len(node.data) < offset:
            node.data.extend(bytes(offset - len(node.data)))
        node.data[offset : offset + len(data)] = data
        node.times = (node.times[0], time.time())
        return len(data)

    def truncate(self, path, length, fh=None):
        node = self.opened(path, fh)
        node.data = node.data[:length] + bytes(max(0, length - len(node.data)))

    def release(self, path, fh):
        del self.open_files[fh]

    def fsync(self, path, datasync, fh):
        if HONEST:
            self.opened(path, fh).sync()

    def fsyncdir(self, path, datasync, fh):
        if HONEST:
            self.node(path).sync()

    def statfs(self, path):
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 22, "f_bfree": 1 << 21, "f_bavail": 1 << 21}


if __name__ == "__main__":
    mount, before, after, seed = sys.argv[1:]
    fuse.FUSE(Layer(before, after, int(seed)), mount, foreground=True, nothreads=True, use_ino=True, hard_remove=True)
