import java.util.List;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/** One node of OpenSearch: see {@link Launch}. */
public final class EmbeddedOpenSearch extends Node {
    private EmbeddedOpenSearch(Environment environment) {
        super(environment, List.of(Netty4Plugin.class), true);
    }

    public static void main(String[] arguments) throws Exception {
        Launch.run(arguments, (given, config) -> {
            Settings.Builder settings = Settings.builder();
            given.forEach((key, value) -> settings.put(key, value));
            return new EmbeddedOpenSearch(new Environment(settings.build(), config)).start();
        });
    }
}
