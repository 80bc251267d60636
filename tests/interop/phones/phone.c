// libwebsockets.
#include <libwebsockets.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct lws *connection;
static char *outgoing, *incoming, *text;  // `outgoing` begins LWS_PRE bytes before its text
static size_t outgoing_size, incoming_size;
static const char *token;
static char **sizes;  // those that were not asked yet
static int pieces;
static bool is_open, is_closing;

static void fail(const char *why) {
  printf("failed: %s\n", why);
  exit(1);
}

static void send_message(const char *type, const char *key, const char *value, const char *more) {
  size_t room = strlen(value) + 200;
  outgoing = malloc(LWS_PRE + room);
  outgoing_size = snprintf(outgoing + LWS_PRE, room, "{\"v\":1,\"type\":\"%s\",\"id\":\"1\",\"ts\":1,\"payload\":{\"%s\":\"%s\"%s}}",
                           type, key, value, more);
  lws_callback_on_writable(connection);
}

static void ask(void) {
  free(text);
  text = NULL;
  if (!*sizes) {
    is_closing = true;
    lws_callback_on_writable(connection);
    return;
  }
  size_t size = strtoul(*sizes++, NULL, 10);
  text = malloc(size + 1);
  for (size_t at = 0; at < size; at++) text[at] = "abcdefghij"[at % 10];
  text[size] = 0;
  pieces = 0;
  send_message("chat.send", "text", text, "");
}

static void take(void) {
  if (strstr(incoming, "\"auth.ok\"")) return ask();
  if (strstr(incoming, "\"chat.stream\"")) {
    pieces++;
    return;
  }
  char *found = text && strstr(incoming, "\"chat.done\"") ? strstr(incoming, "\"full_text\":\"") : NULL;
  size_t size = text ? strlen(text) : 0;
  if (!found || pieces != 3 || strncmp(found + 13, text, size) || found[13 + size] != '"') fail("not the same text");
  ask();
}

static int handle(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size) {
  (void)user;
  switch (reason) {
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
      fail(in ? in : "no connection");
      break;
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
      is_open = true;
      send_message("auth", "token", token, ",\"role\":\"phone\"");
      break;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
      if (outgoing) {
        if (lws_write(wsi, (unsigned char *)outgoing + LWS_PRE, outgoing_size, LWS_WRITE_TEXT) < (int)outgoing_size) fail("write");
        free(outgoing);
        outgoing = NULL;
      } else if (is_closing) {
        lws_close_reason(wsi, LWS_CLOSE_STATUS_NORMAL, NULL, 0);
        return -1;
      }
      break;
    case LWS_CALLBACK_CLIENT_RECEIVE:  // a part of a message, however large that is
      incoming = realloc(incoming, incoming_size + size + 1);
      memcpy(incoming + incoming_size, in, size);
      incoming_size += size;
      incoming[incoming_size] = 0;
      if (lws_is_final_fragment(wsi) && !lws_remaining_packet_payload(wsi)) {
        take();
        incoming_size = 0;
      }
      break;
    case LWS_CALLBACK_CLIENT_CLOSED:
      connection = NULL;
      break;
    default:
      break;
  }
  return 0;
}

int main(int count, char **arguments) {
  if (count < 4) fail("URL TOKEN SIZE...");
  static char address[200], path[200] = "/";
  int port;
  if (sscanf(arguments[1], "ws://%199[^:]:%d%199s", address, &port, path) < 2) fail("not ws://host:port/path");
  token = arguments[2];
  sizes = arguments + 3;
  lws_set_log_level(LLL_ERR, NULL);
  struct lws_protocols protocols[] = {{.name = "phone", .callback = handle, .rx_buffer_size = 65536}, {0}};
  struct lws_context_creation_info settings = {.port = CONTEXT_PORT_NO_LISTEN, .protocols = protocols};
  struct lws_context *context = lws_create_context(&settings);
  struct lws_client_connect_info to = {
      .context = context, .address = address, .port = port, .path = path, .host = address, .origin = address,
      .local_protocol_name = "phone", .pwsi = &connection,
  };
  if (!context || !lws_client_connect_via_info(&to)) fail("no connection");
  while (connection || !is_open) lws_service(context, 0);
  lws_context_destroy(context);
  printf(is_closing ? "ok\n" : "failed: closed\n");
  return !is_closing;
}
