import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/**
 * Starts one OpenSearch node inside this process.
 *
 * <p>In: the config folder, then settings as key=value. Out: the node, until SIGTERM closes it in order. On failure: the
 * exception on standard error, exit code 1.
 */
public final class EmbeddedOpenSearch extends Node {
    private EmbeddedOpenSearch(Environment environment) {
        super(environment, List.of(Netty4Plugin.class), true);
    }

    public static void main(String[] arguments) throws Exception {
        Settings.Builder settings = Settings.builder();
        for (String setting : List.of(arguments).subList(1, arguments.length)) {
            String[] pair = setting.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Node node;
        try {
            node = new EmbeddedOpenSearch(new Environment(settings.build(), Path.of(arguments[0])));
            node.start();
        } catch (Throwable error) {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return;
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        new CountDownLatch(1).await();
    }
}
