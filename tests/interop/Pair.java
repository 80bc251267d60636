import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** A phone and an agent on the JDK's own WebSocket: `java Pair.java <url> <ca.pem> <token>` prints `ok`. */
class Pair {
    static class Client implements WebSocket.Listener {
        final LinkedBlockingQueue<String> messages = new LinkedBlockingQueue<>();
        final StringBuilder partial = new StringBuilder();
        WebSocket socket;

        static Client open(HttpClient http, String url, String token, String role) throws Exception {
            Client client = new Client();
            client.socket = http.newWebSocketBuilder().buildAsync(URI.create(url), client).get(15, TimeUnit.SECONDS);
            client.send("auth", "{\"token\":\"" + token + "\",\"role\":\"" + role + "\"}");
            client.expect("auth.ok");
            return client;
        }

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            partial.append(data);
            if (last) {
                messages.add(partial.toString());
                partial.setLength(0);
            }
            socket.request(1);
            return null;
        }

        String send(String type, String payload) throws Exception {
            String text = "{\"v\":1,\"type\":\"" + type + "\",\"id\":\"1\",\"ts\":1,\"payload\":" + payload + "}";
            socket.sendText(text, true).get(15, TimeUnit.SECONDS);
            return text;
        }

        String receive() throws Exception {
            String text = messages.poll(15, TimeUnit.SECONDS);
            if (text == null) throw new Exception("no message");
            return text;
        }

        void expect(String type) throws Exception {
            String text = receive();
            if (!text.contains("\"type\":\"" + type + "\"")) throw new Exception(text);
        }
    }

    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (var in = Files.newInputStream(Path.of(arguments[1]))) {
            store.setCertificateEntry("relay", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        HttpClient http = HttpClient.newBuilder().sslContext(context).build();
        Client agent = Client.open(http, arguments[0], arguments[2], "agent");
        Client phone = Client.open(http, arguments[0], arguments[2], "phone");
        agent.expect("status");
        for (int size : new int[] {10, 20_000, 1_000_000}) {
            String payload = "{\"text\":\"" + "x".repeat(size) + "\"}";
            if (!phone.send("chat.send", payload).equals(agent.receive())) throw new Exception("changed on the way");
            if (!agent.send("chat.done", payload).equals(phone.receive())) throw new Exception("changed on the way");
        }
        phone.socket.sendClose(1000, "").get(15, TimeUnit.SECONDS);
        agent.expect("status");
        agent.socket.sendClose(1000, "").get(15, TimeUnit.SECONDS);
        System.out.println("ok");
        System.exit(0);
    }
}
