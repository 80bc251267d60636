import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.WebSocket;
import okhttp3.WebSocketListener;

/** OkHttp, which Android apps use, and React Native on Android. `java -cp okhttp.jar:okio.jar Ok.java URL TOKEN SIZE...` */
class Ok extends WebSocketListener {
    final LinkedBlockingQueue<String> messages = new LinkedBlockingQueue<>();

    @Override
    public void onMessage(WebSocket socket, String text) {
        messages.add(text);
    }

    @Override
    public void onClosed(WebSocket socket, int code, String reason) {
        messages.add("closed " + code);
    }

    @Override
    public void onFailure(WebSocket socket, Throwable failure, Response response) {
        messages.add("failed: " + failure);
    }

    String next() throws Exception {
        String text = messages.poll(30, TimeUnit.SECONDS);
        if (text == null || text.startsWith("failed")) throw new Exception(text);
        return text;
    }

    static String envelope(String type, String payload) {
        return "{\"v\":1,\"type\":\"" + type + "\",\"id\":\"1\",\"ts\":1,\"payload\":" + payload + "}";
    }

    public static void main(String[] given) throws Exception {
        OkHttpClient client = new OkHttpClient.Builder().pingInterval(700, TimeUnit.MILLISECONDS).build();
        Ok here = new Ok();
        WebSocket socket = client.newWebSocket(new Request.Builder().url(given[0]).build(), here);
        socket.send(envelope("auth", "{\"token\":\"" + given[1] + "\",\"role\":\"phone\"}"));
        if (!here.next().contains("\"auth.ok\"")) throw new Exception("not let in");
        for (int at = 2; at < given.length; at++) {
            String text = "abcdefghij".repeat(Integer.parseInt(given[at]) / 10 + 1).substring(0, Integer.parseInt(given[at]));
            if (!socket.send(envelope("chat.send", "{\"text\":\"" + text + "\"}"))) throw new Exception("not queued");
            for (int piece = 0; piece < 3; piece++) if (!here.next().contains("\"chat.stream\"")) throw new Exception("no piece");
            if (!here.next().contains("\"full_text\":\"" + text + "\"")) throw new Exception("not the same text");
        }
        Thread.sleep(2_000); // for pings
        socket.close(1000, null);
        if (!here.next().equals("closed 1000")) throw new Exception("not closed");
        System.out.println("ok");
        client.dispatcher().executorService().shutdown();
    }
}
