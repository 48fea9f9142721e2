import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;

/**
 * Runs one node of a search server inside this process.
 *
 * <p>In: the config folder, then settings as key=value; more of them, a line each, may stand in its file `more`. Out: the
 * node, until SIGTERM closes it in order. On failure: the exception on standard error, exit code 1.
 */
final class Launch {
    private Launch() {}

    /** Starts a node. */
    interface Start {
        AutoCloseable node(Map<String, String> settings, Path config) throws Exception;
    }

    static void run(String[] arguments, Start start) throws Exception {
        Path config = Path.of(arguments[0]);
        List<String> given = new ArrayList<>(List.of(arguments).subList(1, arguments.length));
        Path more = config.resolve("more");
        if (Files.exists(more)) {
            given.addAll(Files.readAllLines(more));
        }
        Map<String, String> settings = new LinkedHashMap<>();
        for (String setting : given) {
            String[] pair = setting.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        AutoCloseable node;
        try {
            node = start.node(settings, config);
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
