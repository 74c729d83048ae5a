/* sync.h - what was written is on the disk, and stays there when the power fails. */
#ifndef SYNC_H
#define SYNC_H

/* Waits until the file's bytes and its length are on the disk. Returns 0; or -1 with errno:
 * some may be lost, and are not written again. */
int sync_file(int fd);

/* Waits until the names in the folder of this path are on the disk; not if the folder may
 * not be read, or its file system can't tell. Returns 0; or -1 with errno. */
int sync_folder(const char *path);

#endif
