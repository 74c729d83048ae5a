/* version.h - the version of the programs, printed by --version. */
#ifndef VERSION_H
#define VERSION_H

#define CASCADE_VERSION "1.0"

#endif
