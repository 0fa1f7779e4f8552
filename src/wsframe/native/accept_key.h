/* Sec-WebSocket-Accept, RFC 6455 section 4.2.2: base64(SHA-1(key + GUID)), for a key of 24 characters. */
#ifndef WSFRAME_ACCEPT_KEY_H
#define WSFRAME_ACCEPT_KEY_H

enum { KEY_SIZE = 24, ACCEPT_SIZE = 28 };

void accept_key_choose(void);
void accept_key_compute(char accept[ACCEPT_SIZE], const char key[KEY_SIZE]);

#endif
