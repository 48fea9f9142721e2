import java.util.List;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;
import org.elasticsearch.transport.Netty4Plugin;

/** One node of Elasticsearch 7: see {@link Launch}. */
public final class EmbeddedElasticsearch extends Node {
    private EmbeddedElasticsearch(Environment environment) {
        super(environment, List.of(Netty4Plugin.class), true);
    }

    public static void main(String[] arguments) throws Exception {
        Launch.run(arguments, (given, config) -> {
            Settings.Builder settings = Settings.builder();
            given.forEach((key, value) -> settings.put(key, value));
            return new EmbeddedElasticsearch(new Environment(settings.build(), config)).start();
        });
    }
}
