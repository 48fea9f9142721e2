import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;

/**
 * Starts one node of Elasticsearch 8 inside this process.
 *
 * <p>In: the config folder, then settings as key=value. Its jars are modules of the JVM; what speaks HTTP is a module of its
 * own kind, found in path.home. Out: the node, until SIGTERM closes it in order. On failure: the exception on standard
 * error, exit code 1.
 */
public final class EmbeddedElasticsearch8 {
    private EmbeddedElasticsearch8() {}

    public static void main(String[] arguments) throws Exception {
        Settings.Builder settings = Settings.builder();
        for (String setting : List.of(arguments).subList(1, arguments.length)) {
            String[] pair = setting.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Node node;
        try {
            LogConfigurator.configureESLogging();
            node = new Node(new Environment(settings.build(), Path.of(arguments[0])));
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
