import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;
import org.elasticsearch.transport.Netty4Plugin;

/**
 * Starts one Elasticsearch node inside this process.
 *
 * <p>In: the config folder, then settings as key=value; more of them, a line each, may stand in its file `more`. Out: the node, until SIGTERM closes it in order.
 * On failure: the exception on standard error, exit code 1.
 */
public final class EmbeddedElasticsearch extends Node {
    private EmbeddedElasticsearch(Environment environment) {
        super(environment, List.of(Netty4Plugin.class), true);
    }

    public static void main(String[] arguments) throws Exception {
        List<String> given = new ArrayList<>(List.of(arguments).subList(1, arguments.length));
        Path more = Path.of(arguments[0]).resolve("more");
        if (Files.exists(more)) {
            given.addAll(Files.readAllLines(more));
        }
        Settings.Builder settings = Settings.builder();
        for (String setting : given) {
            String[] pair = setting.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Node node;
        try {
            node = new EmbeddedElasticsearch(new Environment(settings.build(), Path.of(arguments[0])));
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
